"""The resources that a number of users needs: measured unit costs, a model, and a check of the model."""

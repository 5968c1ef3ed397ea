"""What a number of users needs: measured unit costs, a model of them, and what checks the model."""

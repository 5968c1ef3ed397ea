"""What the server says of itself is fit for the tools that others use: generators, parsers, a fuzzer of the whole document."""

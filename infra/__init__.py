"""Services, machines, benchmarks and the scripts that write generated files."""

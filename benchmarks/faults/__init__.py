"""What `benchmarks/faults.py` is made of: two services, real servers, and what is done to them."""

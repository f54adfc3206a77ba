"""On-miss policies, one file each; the contract stands in policies.api."""

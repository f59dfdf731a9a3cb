"""A compression technique for penjing, as a package of its own."""

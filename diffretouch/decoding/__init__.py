"""One photo's way from its files to pictures of one size, and what of it is already done."""

"""The paper's claims: what would settle each, and what the runs say."""

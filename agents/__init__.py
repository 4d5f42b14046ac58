"""RecGym."""

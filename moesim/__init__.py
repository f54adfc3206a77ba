"""moesim: simulator and cost model for mixture-of-experts inference."""

"""Where relay domains come from; each source fills the replica."""

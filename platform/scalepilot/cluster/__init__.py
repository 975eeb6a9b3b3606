"""Ray's cluster: connecting, jobs, storage, and every private name of Ray that is used."""

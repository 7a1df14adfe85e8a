"""The stages joined: find, hash, extract and classify in isolated workers, store."""

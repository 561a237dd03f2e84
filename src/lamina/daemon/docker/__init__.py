"""Docker's Engine API, as far as it is about images and builds: `docker build`, `images`, `pull`, `push` and so on."""

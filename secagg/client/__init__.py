"""The client's side: wait for a plan, train, seal, upload, help decide, download, open."""

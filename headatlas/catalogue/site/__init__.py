"""The catalogue as a web site: plain files that open from a folder or from any host, without a build step or a network."""

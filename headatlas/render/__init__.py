"""One look for everything that is shown: colours, number formats, SVG, styles. Knows nothing of atlases or catalogues."""

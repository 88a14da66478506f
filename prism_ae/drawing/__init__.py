"""From measured cells to the paper's figures. Pure up to `render`, which writes the files."""

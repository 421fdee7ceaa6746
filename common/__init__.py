"""What every chapter of the course imports. One noun a module; start reading at `chapter`."""

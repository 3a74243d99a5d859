"""Do the clusters go with how the images were made? Technical columns, measures of the pixels, tests and sentences."""

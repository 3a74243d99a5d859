"""Do the clusters go with what else is known of the patients? Tests, effect sizes and tables, one row a patient."""

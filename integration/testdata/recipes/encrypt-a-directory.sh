diff -r tree opened/tree

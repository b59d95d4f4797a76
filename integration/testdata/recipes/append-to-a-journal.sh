for i in 1 2 3 4 5 6 7 8; do echo "entry $i"; done > want
sort $T/data/journal | cmp - want

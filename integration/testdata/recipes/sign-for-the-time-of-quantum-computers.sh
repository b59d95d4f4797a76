test "$(cat mldsa.verdict)" = ok
test "$(wc -c < app.tar.mldsa)" = 3309
head -c 100 app.tar > other.tar
! (cat app.tar.mldsa other.tar > $O/lattice.pub/verify && cat $O/lattice.pub/verify)

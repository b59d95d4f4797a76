java Token.java p11fs.cfg 1234abcd | tee said
grep -qx 'all well' said
# Our own module passes the parameters of every mode.
case $M in *libp11fs.so) ! grep '^not offered' said ;; esac

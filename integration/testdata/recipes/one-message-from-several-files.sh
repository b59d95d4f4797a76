cat part.1 part.2 part.3 > whole
cat whole > $O/joined.sec/sign; cat $O/joined.sec/sign | cmp - joined.mac
test "$(stat -c %s joined.mac)" = 32

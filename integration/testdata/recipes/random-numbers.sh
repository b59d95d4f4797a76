test "$(stat -c %s seed)" = 32
! cmp -s seed /dev/zero

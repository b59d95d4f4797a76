cmp new-secret $T/data/rotating
test "$(ls $O | grep -c rotating)" = 1

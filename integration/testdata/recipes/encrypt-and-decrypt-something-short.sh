test "$(cat short.txt)" = 'the safe opens with 12-34-56'
test "$(stat -c %s short.enc)" = 57

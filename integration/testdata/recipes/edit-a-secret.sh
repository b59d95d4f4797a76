test "$(cat $T/data/profile)" = 'name: new'

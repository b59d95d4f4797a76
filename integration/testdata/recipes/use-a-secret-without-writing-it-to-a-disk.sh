test "$(cat $T/data/curl.conf)" = 'user = "me:secret"'

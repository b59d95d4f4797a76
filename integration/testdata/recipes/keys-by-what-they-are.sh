test "$(cat found)" = green.sec

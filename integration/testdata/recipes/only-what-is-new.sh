test "$(cat inc/inc.a)" = two

test "$(cat arrived.name)" = arrived.sec
echo hello > $O/cargo.sec/encrypt; cat $O/cargo.sec/encrypt > hello.enc
cat hello.enc > $O/arrived.sec/decrypt; test "$(cat $O/arrived.sec/decrypt)" = hello

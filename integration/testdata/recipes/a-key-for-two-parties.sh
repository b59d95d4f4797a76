cat $O/ours.pub/public.pem > ours.pub
openssl pkeyutl -derive -inkey theirs.pem -peerkey ours.pub -out z
cmp z $O/common.sec/value
cat $O/mine.pub/public.pem > mine.pub
openssl pkeyutl -derive -inkey yours.pem -peerkey mine.pub -out z25519
cmp z25519 $O/shared.sec/value
test "$(cat heard.name)" = heard.sec
test "$(wc -c < told.ct)" = 1088
test "$(cat heard.text)" = secret
test "$(wc -c < packed.ct)" = 1088
test "$(cat taken.text)" = secret

cat $O/ours.pub/public.pem > ours.pub
openssl pkeyutl -derive -inkey theirs.pem -peerkey ours.pub -out z
cmp z $O/common.sec/value

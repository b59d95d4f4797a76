ssh-keygen -l -f authorized_keys | grep -q ED25519
cat part.3.ed part.3 > $O/fast.pub/verify && grep -qx ok $O/fast.pub/verify
! cat part.3.ed part.2 > $O/fast.pub/verify

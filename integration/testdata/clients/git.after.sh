# What was changed does not verify, nor does another's signature.
git log --show-signature -1 | grep 'Good "git" signature for me@example.org'
git -c commit.gpgsign=false commit -q --allow-empty -m unsigned
git verify-commit HEAD && exit 1
p11fs logout swtok
git commit -q --allow-empty -m "without a login" && exit 1
ssh-agent -k

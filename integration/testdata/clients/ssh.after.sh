cd ..
git -C repo -c gpg.ssh.allowedSignersFile=../signers log --format=%G? -1 | grep -qx G
# The module by itself, without an agent; and the agent's card taken out again.
[ "$(SSH_AUTH_SOCK= ssh -p $PORT -o UserKnownHostsFile=known_hosts -o PKCS11Provider=$M -o IdentitiesOnly=yes -i login.pub 127.0.0.1 echo by module)" = 'by module' ]
ssh-add -e $M
! ssh-add -T login.pub

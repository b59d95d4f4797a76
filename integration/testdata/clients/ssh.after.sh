# git signs with the key too.
git init -q repo
git -C repo -c gpg.format=ssh -c user.signingkey="key::$(cut -d' ' -f1,2 login.pub)" -c user.name=me -c user.email=me@example.org commit -q -S --allow-empty -m signed
echo "me@example.org $(cat login.pub)" > signers
git -C repo -c gpg.ssh.allowedSignersFile="$PWD/signers" verify-commit HEAD
# The module by itself, without an agent; and the agent's card taken out again.
[ "$(SSH_AUTH_SOCK= ssh -p $PORT -o UserKnownHostsFile=known_hosts -o PKCS11Provider=$M -o IdentitiesOnly=yes -i login.pub 127.0.0.1 echo by module)" = 'by module' ]
ssh-add -e $M
! ssh-add -T login.pub

cmp laptop.pub copy.pub
O=$(p11fs path swtok)/objects
SSH="ssh -p $PORT -o UserKnownHostsFile=known_hosts -o IdentitiesOnly=yes -o PasswordAuthentication=no"
# Every type and size of key that ssh has, each with the hash that belongs to it.
for what in rsa:2048 ec:p256 ec:p384 ec:p521; do
	p11fs generate swtok $what label=$what-ssh
	cat "$O/$what-ssh.key/public.ssh" > k.pub
	cat k.pub >> authorized_keys
	ssh-add -T k.pub
	[ "$($SSH -i k.pub 127.0.0.1 echo $what)" = $what ]
done
$SSH -o PubkeyAcceptedAlgorithms=rsa-sha2-256 -i deploy.pub 127.0.0.1 true && exit 1 # it is not let in yet
cat "$O/deploy.key/public.ssh" > deploy.pub
cat deploy.pub >> authorized_keys
$SSH -o PubkeyAcceptedAlgorithms=rsa-sha2-256 -i deploy.pub 127.0.0.1 true
# Commits and files are signed, and verify.
git init -q repo
git -C repo config gpg.format ssh
git -C repo config user.signingkey "$PWD/laptop.pub"
git -C repo -c user.name=me -c user.email=me@example.org commit -q -S --allow-empty -m signed
echo "me@example.org $(cat laptop.pub)" > signers
git -C repo -c gpg.ssh.allowedSignersFile="$PWD/signers" verify-commit HEAD
# A key that was replaced comes last.
p11fs generate swtok ed25519 label=aaa
p11fs rotate swtok/aaa
ssh-add -l | grep -n 'swtok/' > offered
head -n -1 offered | grep 'swtok/aaa\.key '
tail -n 1 offered | grep 'swtok/aaa-20..-..-..\.key '
# So it does under any name, and a copy of a key is not offered a second time.
p11fs mv swtok/aaa zzz
old=$(cd "$O" && echo aaa-20*.key)
p11fs mv "swtok/${old%.key}" aab
p11fs cp swtok/zzz zzzz
ssh-add -l | grep -n 'swtok/' > offered
head -n -1 offered | grep 'swtok/zzz\.key '
tail -n 1 offered | grep 'swtok/aab\.key '
grep -q 'swtok/zzzz\.key ' offered && exit 1
# A public one, which anybody may have made, comes behind the others.
p11fs generate swtok ed25519 label=0anybody private=false id=0x0a
ssh-add -l | grep -n 'swtok/' > offered
head -n -2 offered | grep 'swtok/laptop\.key '
tail -n 2 offered | grep 'swtok/0anybody\.key '
p11fs rm --yes swtok/0anybody
# A certificate, of a CA that is in the token too.
p11fs generate swtok ed25519 label=sshca
cat "$O/sshca.key/public.ssh" > sshca.pub
ssh-keygen -q -Us sshca.pub -I laptop -n "$(id -un)" laptop.pub
echo "cert-authority $(cat sshca.pub)" > authorized_keys
p11fs agent --key swtok/laptop --certificate laptop-cert.pub sh -ec "
	ssh-add -l | grep -q CERT
	[ \$(ssh-add -l | wc -l) = 2 ]
	$SSH -o CertificateFile=laptop-cert.pub -i laptop.pub 127.0.0.1 true"
cat laptop.pub > authorized_keys
# Locked it shows nothing; keys of others do not come in.
printf '#!/bin/sh\necho locked\n' > askpass
ssh-add -x && ssh-add -l && exit 1
$SSH -i laptop.pub 127.0.0.1 true && exit 1
ssh-add -X && ssh-add -T laptop.pub
ssh-keygen -q -t ed25519 -N '' -f other
ssh-add other && exit 1
ssh-add -D && exit 1
ssh-add -T laptop.pub
# Each use is asked for: by a program that says no, and by one that says yes.
printf '#!/bin/sh\nexit 1\n' > no; printf '#!/bin/sh\necho "$1 $SSH_ASKPASS_PROMPT" >> asked\n' > yes; chmod +x no yes
SSH_ASKPASS=$PWD/no p11fs agent --confirm ssh-add -T laptop.pub && exit 1
SSH_ASKPASS=$PWD/yes p11fs agent --confirm ssh-add -T laptop.pub
grep -q '^Allow use of key swtok/laptop.key (SHA256:.*)? confirm$' asked
# It ends with its command, with that one's status, and by itself.
p11fs agent sh -c 'echo $SSH_AUTH_SOCK > path; exit 7' || [ $? = 7 ]
[ ! -e "$(cat path)" ]
p11fs agent --lifetime 100ms --foreground --socket here > /dev/null
[ ! -e here ]
p11fs agent --socket "$SSH_AUTH_SOCK" && exit 1 || [ $? = 5 ]
p11fs agent --token nothing true && exit 1
p11fs agent --certificate laptop.pub true && exit 1
[ "$(stat -c %a "$SSH_AUTH_SOCK")" = 600 ]
# What the terminal does not see any more is gone.
p11fs logout swtok
ssh-add -l && exit 1
$SSH -i laptop.pub 127.0.0.1 true && exit 1
ssh-agent -k
[ ! -e "$SSH_AUTH_SOCK" ] || { sleep 1; [ ! -e "$SSH_AUTH_SOCK" ]; }
SSH_AGENT_PID=

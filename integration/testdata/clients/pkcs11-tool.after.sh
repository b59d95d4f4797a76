# What is made through the module is at once in the tree, and the reverse.
echo 1234abcd | p11fs login swtok
cat msg > $O/tool.key/sign; cat $O/tool.key/sign > sig.tree
openssl dgst -sha256 -verify pub.der -keyform DER -signature sig.tree msg
p11fs generate swtok rsa:2048 label=tree id=0x1f
pkcs11-tool --module $M --login --pin 1234abcd --sign --mechanism SHA256-RSA-PKCS --id 1f -i msg -o sig.module
openssl dgst -sha256 -verify $O/tree.pub/public.pem -signature sig.module msg
pkcs11-tool --module $M --login --pin 1234abcd --delete-object --type privkey --id 01
[ ! -e $O/tool.key ]
rmdir $O/tree.key
! pkcs11-tool --module $M --login --pin 1234abcd --list-objects --type privkey | grep tree
# The program's login was its own: here nobody has logged out.
grep -q user $T/login

# No key and no token is alone: a second token has a like name and a key of the label
# that the lines use, and the first two keys of its type, which no identifier tells apart.
printf '%s\n' 87654321 demo2 1234abcd | p11fs init twin --yes
for one in "demo $LABEL-old" "demo $LABEL-new" "demo2 $TWIN"; do
	pkcs11-tool --module $M --token-label ${one% *} --login --pin 1234abcd --keypairgen --key-type $KEY --label ${one#* }
done

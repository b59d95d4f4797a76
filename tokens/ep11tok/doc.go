// Package ep11tok is the kind of token whose keys a card in EP11 mode has, as openCryptoki's
// EP11 token: objects are in a token directory, and of a key they have the blob that only
// the card can open. Every operation is a call of the card (tokens/card/ep11). An operation's
// state is kept here, encrypted by the card, so that it may go on at another one.
//
// A card that does not answer leaves the token where it is: objects are listed, and what
// needs the card gives CKR_DEVICE_REMOVED.
package ep11tok

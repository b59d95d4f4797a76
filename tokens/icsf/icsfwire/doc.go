// Package icsfwire is what goes over the wire between a program and the PKCS#11 services of
// ICSF on z/OS: LDAP v3 (RFC 4511) as far as they need it, and in its extended operation
// 1.3.18.0.2.12.83 the eighteen services, as IBM's "Tivoli Directory Server Plug-in Reference
// for z/OS" (SA76-0169), RemoteCryptoPKCS#11, and stock openCryptoki's icsf token have them.
//
// Each structure is described once, by the method layout, for both ends and both directions.
// What is read may have lengths in any form of BER, more elements than are known, and numbers
// with leading zeros; what is written is DER, byte for byte as stock writes it. Nothing that is
// read is copied but for attributes: it is valid as long as the message.
package icsfwire

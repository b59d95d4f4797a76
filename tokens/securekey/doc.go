// Package securekey is what tokens share whose keys are blobs that only a card can open: an
// object has the blob in CKA_IBM_OPAQUE and no secret values, whatever stock openCryptoki
// put there. It knows no card.
package securekey

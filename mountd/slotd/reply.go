package slotd

import (
	"encoding/binary"

	"p11fs/mountd/config"
	"p11fs/p11"
)

// The reply's layout, in bytes.
const (
	// ReplySize is the length of what a client gets.
	ReplySize = replySlots + config.MaxSlots*slotSize

	replyInfo  = 8
	replySlots = 96
	slotSize   = 904

	infoManufacturer = 2
	infoDescription  = 48
	infoVersion      = 80

	slotPresent      = 8
	slotDescription  = 16
	slotManufacturer = 80
	slotFlags        = 112
	slotHardware     = 120
	slotFirmware     = 122
	slotLibrary      = 128
	slotConfName     = 384
	slotTokenName    = 640
	slotText         = 256
)

// Reply is what each client of the slot socket gets for these slots.
func Reply(slots []config.Slot) []byte {
	b := make([]byte, ReplySize)
	b[0] = byte(len(slots))
	info := b[replyInfo:]
	putVersion(info, p11.Version{Major: 2, Minor: 20})
	putBlanks(info[infoManufacturer:infoManufacturer+32], "IBM")
	putBlanks(info[infoDescription:infoDescription+32], "Meta PKCS11 LIBRARY")
	putVersion(info[infoVersion:], p11.Version{Major: 3, Minor: 8})
	for n := range config.MaxSlots {
		binary.NativeEndian.PutUint64(b[replySlots+n*slotSize:], uint64(n))
	}
	for _, s := range slots {
		e := b[replySlots+int(s.ID)*slotSize:][:slotSize]
		e[slotPresent] = 1
		copy(e[slotDescription:slotDescription+64], s.Description)
		copy(e[slotManufacturer:slotManufacturer+32], s.Manufacturer)
		binary.NativeEndian.PutUint64(e[slotFlags:], uint64(p11.CKF_TOKEN_PRESENT))
		putVersion(e[slotHardware:], s.Hardware)
		putVersion(e[slotFirmware:], s.Firmware)
		copy(e[slotLibrary:slotLibrary+slotText-1], s.Library)
		copy(e[slotConfName:slotConfName+slotText-1], s.ConfName)
		copy(e[slotTokenName:slotTokenName+slotText-1], s.TokenName)
	}
	return b
}

func putVersion(b []byte, v p11.Version) { b[0], b[1] = v.Major, v.Minor }

func putBlanks(b []byte, s string) {
	for i := copy(b, s); i < len(b); i++ {
		b[i] = ' '
	}
}

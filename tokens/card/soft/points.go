package soft

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"p11fs/tokens/card/ep11"
)

// firstPoints are the control points of new cards: all are on but that by which anybody, and
// not administrators alone, may say that other keys are to trust a key.
func firstPoints() []byte {
	b := bytes.Repeat([]byte{0xff}, ep11.ControlPointBytes)
	ep11.SetPoint(b, pointTrust, false)
	return b
}

// ControlPoints says which uses the cards allow now.
func (s *Set) ControlPoints() ([]byte, error) {
	_, points, err := s.readConfig()
	return points, err
}

// SetControlPoints switches control points on or off: all of them at once.
func (s *Set) SetControlPoints(on map[int]bool) error {
	return s.locked(func() error {
		c, points, err := s.readConfig()
		if err != nil {
			return err
		}
		for n, on := range on {
			if n < 0 || n >= 8*len(points) {
				return fmt.Errorf("there is no control point %d", n)
			}
			ep11.SetPoint(points, n, on)
		}
		c.ControlPoints = hex.EncodeToString(points)
		return s.writeConfigLocked(c)
	})
}

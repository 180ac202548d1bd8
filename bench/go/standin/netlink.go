package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// changeAddress adds an address with a /32 mask to an interface, or takes it away. os.ErrExist: it is there already.
func changeAddress(index int, address netip.Addr, add bool) error {
	kind, flags := uint16(syscall.RTM_DELADDR), uint16(syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	if add {
		kind, flags = syscall.RTM_NEWADDR, flags|syscall.NLM_F_CREATE|syscall.NLM_F_EXCL
	}
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	kernel := &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}
	if err := syscall.Sendto(socket, addressMessage(kind, flags, index, address), 0, kernel); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	size, _, err := syscall.Recvfrom(socket, answer, 0)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:size])
	if err != nil {
		return err
	}
	for _, message := range messages {
		if message.Header.Type == syscall.NLMSG_ERROR && len(message.Data) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(message.Data)); code != 0 {
				return syscall.Errno(-code)
			}
			return nil
		}
	}
	return fmt.Errorf("the kernel did not answer")
}

func addressMessage(kind, flags uint16, index int, address netip.Addr) []byte {
	four := address.As4()
	body := []byte{syscall.AF_INET, 32, 0, syscall.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, uint32(index))
	for _, attribute := range []uint16{syscall.IFA_LOCAL, syscall.IFA_ADDRESS} {
		body = binary.NativeEndian.AppendUint16(body, 8)
		body = binary.NativeEndian.AppendUint16(body, attribute)
		body = append(body, four[:]...)
	}
	message := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, flags)
	message = binary.NativeEndian.AppendUint32(message, 1)
	message = binary.NativeEndian.AppendUint32(message, 0)
	return append(message, body...)
}

// announce tells everybody on the link that address is here: gratuitous ARP, as request and as reply.
func announce(device *net.Interface, address netip.Addr) error {
	if len(device.HardwareAddr) != 6 {
		return nil
	}
	arp := binary.BigEndian.Uint16([]byte{0x08, 0x06})
	protocol := binary.NativeEndian.Uint16([]byte{0x08, 0x06})
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	everybody := &syscall.SockaddrLinklayer{
		Protocol: protocol, Ifindex: device.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255},
	}
	for _, operation := range []uint16{1, 2} {
		if err := syscall.Sendto(socket, gratuitous(device.HardwareAddr, address, arp, operation), 0, everybody); err != nil {
			return err
		}
	}
	return nil
}

func gratuitous(from net.HardwareAddr, address netip.Addr, arp, operation uint16) []byte {
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	four := address.As4()
	frame := append(append([]byte{}, broadcast...), from...)
	frame = binary.BigEndian.AppendUint16(frame, arp)
	frame = append(frame, 0, 1, 8, 0, 6, 4) // Ethernet, IPv4, and the sizes of their addresses
	frame = binary.BigEndian.AppendUint16(frame, operation)
	frame = append(append(frame, from...), four[:]...)
	return append(append(frame, broadcast...), four[:]...)
}

package main

import (
	"encoding/binary"
	"errors"
)

// message is what is needed of a protobuf message: its fields by number, each occurrence in order.
type message map[int][]field

type field struct {
	number uint64
	bytes  []byte
}

var errProtobuf = errors.New("not a protobuf message")

// parse reads the two wire types that CSI requests use, and skips fixed-size ones.
func parse(data []byte) (message, error) {
	found := message{}
	for len(data) > 0 {
		tag, size := binary.Uvarint(data)
		if size <= 0 {
			return nil, errProtobuf
		}
		data = data[size:]
		value, rest, err := parseField(tag&7, data)
		if err != nil {
			return nil, err
		}
		found[int(tag>>3)] = append(found[int(tag>>3)], value)
		data = rest
	}
	return found, nil
}

func parseField(kind uint64, data []byte) (field, []byte, error) {
	fixed := 0
	switch kind {
	case 0:
		value, size := binary.Uvarint(data)
		if size <= 0 {
			return field{}, nil, errProtobuf
		}
		return field{number: value}, data[size:], nil
	case 1:
		fixed = 8
	case 2:
		length, size := binary.Uvarint(data)
		if size <= 0 || length > uint64(len(data)-size) {
			return field{}, nil, errProtobuf
		}
		end := size + int(length)
		return field{bytes: data[size:end]}, data[end:], nil
	case 5:
		fixed = 4
	default:
		return field{}, nil, errProtobuf
	}
	if len(data) < fixed {
		return field{}, nil, errProtobuf
	}
	return field{}, data[fixed:], nil
}

// text is the last value of a string field.
func (m message) text(number int) string {
	if all := m[number]; len(all) > 0 {
		return string(all[len(all)-1].bytes)
	}
	return ""
}

// truth is the last value of a bool field.
func (m message) truth(number int) bool {
	all := m[number]
	return len(all) > 0 && all[len(all)-1].number != 0
}

// texts is a map from string to string.
func (m message) texts(number int) (map[string]string, error) {
	found := map[string]string{}
	for _, entry := range m[number] {
		pair, err := parse(entry.bytes)
		if err != nil {
			return nil, err
		}
		found[pair.text(1)] = pair.text(2)
	}
	return found, nil
}

// putBytes appends a string, bytes or embedded message.
func putBytes(to []byte, number int, value []byte) []byte {
	to = binary.AppendUvarint(to, uint64(number)<<3|2)
	to = binary.AppendUvarint(to, uint64(len(value)))
	return append(to, value...)
}

// putTrue appends a bool that is true.
func putTrue(to []byte, number int) []byte {
	return append(binary.AppendUvarint(to, uint64(number)<<3), 1)
}

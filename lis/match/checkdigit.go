package match

// CheckDigit verifies the check digit of a record number under an HL7 scheme
// (Table 0061). Schemes it does not know verify nothing and are fine.
func CheckDigit(value, digit, scheme string) bool {
	if digit == "" {
		return true
	}
	switch scheme {
	case "M10":
		d, ok := mod10(value)
		return ok && digit == d
	case "M11":
		d, ok := mod11(value)
		return ok && digit == d
	}
	return true
}

// mod10 is HL7 v2, Section 2.A.14.2: every second digit from the right doubled.
func mod10(value string) (string, bool) {
	sum := 0
	for i := range len(value) {
		c := value[len(value)-1-i]
		if c < '0' || c > '9' {
			return "", false
		}
		d := int(c - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return string(rune('0' + (10-sum%10)%10)), value != ""
}

// mod11 weighs the digits from the right by 2 to 7, again and again. A number
// whose remainder is one has no check digit.
func mod11(value string) (string, bool) {
	sum := 0
	for i := range len(value) {
		c := value[len(value)-1-i]
		if c < '0' || c > '9' {
			return "", false
		}
		sum += int(c-'0') * (2 + i%6)
	}
	switch r := sum % 11; r {
	case 0:
		return "0", value != ""
	case 1:
		return "", false
	default:
		return string(rune('0' + 11 - r)), true
	}
}

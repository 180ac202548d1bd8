module funoffshore.bench/standin

go 1.26

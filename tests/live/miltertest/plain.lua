-- One message, all steps, as a mail server of today would.
conn = mt.connect(address)
if conn == nil then error("nobody listens") end
if mt.negotiate(conn, 6, SMFIF_ADDHDRS + SMFIF_CHGHDRS + SMFIF_QUARANTINE, nil) ~= nil then error("negotiation") end
if mt.conninfo(conn, "mail.sender.example", "203.0.113.9") ~= nil then error("connect") end
if mt.helo(conn, "mail.sender.example") ~= nil then error("helo") end
mt.macro(conn, SMFIC_MAIL, "i", "4XyZ1", "{mail_addr}", "a@sender.example")
if mt.mailfrom(conn, "<a@sender.example>", "SIZE=100") ~= nil then error("mail") end
if mt.rcptto(conn, "<b@example.org>") ~= nil then error("rcpt") end
if mt.data(conn) ~= nil then error("data") end
if mt.header(conn, "Subject", "hello") ~= nil then error("header") end
if mt.header(conn, "X-Spam-Flag", "NO") ~= nil then error("header") end
if mt.eoh(conn) ~= nil then error("end of header") end
if mt.bodystring(conn, "hello\r\n") ~= nil then error("body") end
if mt.eom(conn) ~= nil then error("end of message") end
if mt.getreply(conn) ~= SMFIR_ACCEPT then error("not accepted") end
if not mt.eom_check(conn, MT_HDRADD, "X-Spam-Flag") then error("no X-Spam-Flag added") end
if not mt.eom_check(conn, MT_HDRADD, "X-Spam-Score") then error("no X-Spam-Score added") end
if not mt.eom_check(conn, MT_HDRDELETE, "x-spam-flag") then error("the forged field stays") end
if mt.eom_check(conn, MT_QUARANTINE) then error("held") end
mt.disconnect(conn)
